"""What rows were, and bringing that back."""
