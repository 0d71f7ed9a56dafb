"""How work is split over ranks; every function returns at once where there is one rank."""
