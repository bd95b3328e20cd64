"""How the demo couples are drawn: places, people, scenes by lot, films."""
