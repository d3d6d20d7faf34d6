"""`python -m keras_qat`: the command line `keras-qat`."""

from keras_qat_cli.main import run

if __name__ == "__main__":
    run()
