"""The serving service: endpoints, their revisions, and the traffic between them."""
