"""Commands for people who change or compare versions of this project; no script of a task needs them."""
