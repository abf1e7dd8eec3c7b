"""CloudEvents over NATS JetStream: what happened, told once, in order, to whoever wants to know."""
