"""Runs a MAO node natively: etcd and the five services as supervised processes in the foreground."""
