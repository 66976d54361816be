"""Bytes and properties ↔ events. In: events or deliveries. Out: messages or events, validated."""

from pipeline.codec.codec import Codec
from pipeline.codec.payload import Payload, any_json, from_annotation, from_declaration

__all__ = ["Codec", "Payload", "any_json", "from_annotation", "from_declaration"]
