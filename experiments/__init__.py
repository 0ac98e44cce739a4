"""What is compared: studies, their execution, the leaderboard, the command line."""
