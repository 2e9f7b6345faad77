"""The integer recurrence: the function, what it checks, and one call of it.

Not `hw3tf.ops.integer_rnn`: that is the function.
"""
