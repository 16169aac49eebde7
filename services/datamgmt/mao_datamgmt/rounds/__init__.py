"""Rounds: the nodes' snapshots of a dataset for a tick announced, pinned, voted, attested and decided.


What nodes say, and when:
parts      in which datasets this node takes part, said under its own prefix
voters     who has a say in a dataset: nodes that take part and are members
due        pure: what a run brings to rounds
announce   what this node's runs bring to rounds, said under its own prefix
past       pure: whether a tick without a round is over, or only has none yet
passed     up to which tick this node has said all that it had to say
said       what all nodes have said, by dataset, round and node
steady     for how long the federation's store has answered: only then silence means anything

What is done about it:
seen       what is known of a dataset's rounds, and what can be done about them
since      when this node itself heard rounds begin, and saw them closed
decide     pure: what is known of a dataset's rounds → what to do next
founded    pure: what of a round's record is to be believed
consented  in which datasets this node has a say, and by which definitions it votes
by_dataset rounds in memory, found by their dataset
controller one dataset at a time: has done what `decide` says
acts       does it, each step by one guarded write
look       what a round pins, worked out from announcements and the dataset's remote
votes      the vote, computed in a process of its own, which is
work       that process
deliver    ground truth moved at the remote, forwards only

What others make of it:
late_truth steps that read ground truth: whether they wait, go on or are skipped
live       rounds as they stand, for people to look at
tell       alarms
retain     what goes from the federation's store with time
rounds     all of it in one object
"""
