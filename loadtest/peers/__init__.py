"""Peers that the gateway is compared with."""
