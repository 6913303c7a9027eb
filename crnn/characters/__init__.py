"""Pictures of single characters: a network that embeds them, its classes, and what tells how well it does."""
