"""Topology files: reading, checking, expanding, planning, drawing."""
