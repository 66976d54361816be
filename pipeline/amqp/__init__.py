"""Everything that touches a RabbitMQ client library: connection, lane, publisher, consumer, declaring, live state."""
