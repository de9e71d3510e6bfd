"""What at least two services use. Every module is a noun; nothing here knows a service."""
