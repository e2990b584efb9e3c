"""The technology behind the ports: Orthanc over HTTP, tag_service over gRPC, PostgreSQL."""
