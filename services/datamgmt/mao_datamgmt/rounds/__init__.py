"""Rounds: announce, pin, vote, attest and decide the nodes' snapshots of a dataset for a tick.

service        composition and loops

announcer      announces what this node's runs contribute to rounds
pending        the announcements of a run; watermarks of announced ticks
participation  the datasets in which this node takes part, and whether it decides alone
peer_records   the records of all nodes about rounds, and the voters

controller     one dataset at a time: builds the view, decides, executes; the store's health
view           the known state of a dataset's rounds, and the possible actions
decide         pure: from the view to actions
validation     pure: which parts of a round's record can be trusted
executor       executes actions, each by one guarded write
remote         reads the snapshots to pin from the dataset's remote, pushes ground truth
compute        the vote, in a child process

input_gate     whether a step that reads ground truth starts, waits or is too late
reporting      live rounds for the API, and alarms
retention      removes old rounds from the federation store
"""
