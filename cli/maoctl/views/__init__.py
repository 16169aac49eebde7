"""How records look to people: a table a noun, and the facts about one record."""
