"""LSTM, GRU and the simple RNN: the functions, their checks, and one call of them."""
