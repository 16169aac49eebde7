"""Rounds: the nodes' snapshots of a dataset for a tick announced, pinned, voted, attested and decided.

service        all of it in one object: composition and loops

announcer      announces what this node's runs contribute to rounds
pending        what a run has to announce; the watermark up to which all is announced
participation  in which datasets this node takes part, and whether it decides alone
peer_records   what all nodes have written about rounds, and who votes

controller     one dataset at a time: builds the view, decides, executes; the store's health
view           what is known of a dataset's rounds, and the actions to choose from
decide         pure: from the view to actions
validation     pure: which parts of a round's record can be trusted
executor       executes actions, each by one guarded write
remote         the snapshots to pin, read from the dataset's remote; ground truth moved there
compute        the vote, in a process of its own

input_gate     whether a step that reads ground truth starts, waits or is too late
reporting      live rounds for people, and alarms
retention      what is removed from the federation store with time
"""
