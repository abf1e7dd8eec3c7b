"""The servers that Penstock runs on one machine: NATS, MongoDB, Envoy and Triton, as managed processes.

They outlive the services (kill -9 of `penstock up` stops no prediction), so everything about them that a new parent
must know lies in files of the home directory, and nothing is ever signalled that is not provably ours.
"""
