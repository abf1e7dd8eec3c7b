"""The services of Penstock: one package each, which share nothing but `penstock`, gRPC and events."""
