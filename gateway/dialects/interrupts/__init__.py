"""Agent runs that are interrupted by questions and resumed with their answers."""
