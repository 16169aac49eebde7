"""The life of a federation: creating, inviting, joining, leaving, and who runs its etcd.

What holds for every command here: its steps are written so that each may be repeated, the last one makes it
true for everybody, and a command that was killed half-way is finished by giving it again.
"""
