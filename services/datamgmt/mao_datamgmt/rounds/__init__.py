"""Rounds: the nodes' snapshots of one dataset for one tick, announced, pinned, voted, attested, decided.

parts      in which datasets this node takes part, said under its own prefix
voters     who has a say in a dataset: nodes that take part and are members
announce   what this node's runs bring to rounds, said under its own prefix
decide     pure: what is known of a dataset's rounds → what to do next
pins       what a round pins, worked out from announcements and the dataset's remote
controller one dataset at a time: does what `decide` says, each step by one guarded write
deliver    ground truth moved at the remote, forwards only
late_truth steps that read ground truth: whether they wait, go on or are skipped
"""
