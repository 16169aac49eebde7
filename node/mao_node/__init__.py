"""Runs a MAO node natively: etcd and the five services as supervised processes of one foreground command."""
