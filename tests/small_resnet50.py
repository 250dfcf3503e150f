"""A backbone in the place of keras.applications' ResNet50, for tests that train but do not ask what the backbone is.

TensorFlow and JAX take most of a short training to build the graph of ResNet50's 175 layers; this one has 15.
"""

import keras

LAST_BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # of each stage of ResNet50: RPN takes their outputs by name


def small_resnet50(*, include_top, weights, input_shape):
    """A convolution and a batch norm for each stage of ResNet50, with its strides and an eighth of its channels."""
    assert not include_top and weights is None
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(16, 7, strides=2, padding="same", use_bias=False, name="conv1_conv")(inputs)
    x = keras.layers.BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.Activation("relu", name="conv1_relu")(x)
    for stage, block in LAST_BLOCKS.items():
        name = f"conv{stage}_block{block}"
        channels = 2 ** (stage + 3)
        x = keras.layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.Activation("relu", name=f"{name}_out")(x)
    return keras.Model(inputs, x)


def use_small_resnet50():
    """Let this process build the small one."""
    keras.applications.ResNet50 = small_resnet50
