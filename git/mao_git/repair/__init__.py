"""Repair of broken clones: detect the damage, and move their unpushed commits to a new clone."""
