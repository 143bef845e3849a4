"""The gRPC side of the client: calls, values, uploads, watches, downloads. Importing this package imports no gRPC."""
