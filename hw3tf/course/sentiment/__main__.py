"""`python -m hw3tf.course.sentiment`: one model of tutorial 4, by its command line."""

from hw3tf.course.sentiment.program import command

if __name__ == "__main__":
    command()
