"""The event log: everything that was published, kept in a stream. In: settings and topology. Out: events, again."""
