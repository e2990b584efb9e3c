"""The servicers: protobuf messages in and out of the use cases."""
