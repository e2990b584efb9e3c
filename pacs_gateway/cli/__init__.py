"""The client: sends files and CDs to a gateway over gRPC, and says what became of them. It needs the extra `cli`."""
