"""The gateway: clients in their own protocols outside, the mesh inside.

In: audio of a client, as a WebSocket, an upload or a gRPC stream. Out: the transcript, in that
client's protocol. It alone keeps what a session needs to go on when a worker dies.
"""
