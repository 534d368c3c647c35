"""Commands of the project, and the modules behind them."""
