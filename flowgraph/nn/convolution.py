"""Convolutional layers, and the pooling and flattening that go between them. Channels come before an image's sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from flowgraph.errors import ShapeError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import scope
from flowgraph.graph.size import Size, show_shape
from flowgraph.graph.tensor import Tensor
from flowgraph.nn.init import glorot_uniform, he_normal
from flowgraph.nn.layers import Layer, one_tensor, require_activation
from flowgraph.ops.convolution import conv1d, conv2d
from flowgraph.ops.elementwise import add
from flowgraph.ops.leaf import Initializer, as_tensor, parameter, require_initializer
from flowgraph.ops.piecewise import relu
from flowgraph.ops.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from flowgraph.ops.shape import expand_dims, reshape
from flowgraph.ops.windows import per_axis


class Conv(Layer):
    """What the convolutional layers share: activation(convolution of x and w, + b), b one number a map.

    w is (maps, channels / groups, *kernel), b (maps,). `kernel` is an int or one for each axis; `stride`, `padding`,
    `dilation` and `groups` are those of `fg.conv2d`. w is drawn by `init`: He's normal where the activation is
    `fg.relu`, else Glorot's uniform; a unit's fan-in is channels / groups times the elements of the kernel.
    """

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        name: str,
        channels: int,
        maps: int,
        kernel: Any,
        activation: Callable[[Tensor], Tensor] | None = None,
        *,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        init: Initializer | None = None,
        bias: bool = True,
        dtype: str = "float32",
    ) -> None:
        require_activation(activation)
        what = type(self).__name__
        self.name, self.channels, self.activation = name, channels, activation
        self.settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self.kernel = per_axis(what, "kernel", kernel, self.axes)
        per_axis(what, "groups", groups, 1)
        if channels % groups or maps % groups:
            raise ShapeError(
                f"{what} {name!r}: {channels} channels and {maps} maps do not divide into {groups} groups",
                where=origins.here(),
                hint="both must be multiples of groups",
            )
        init = init or (he_normal() if activation is relu else glorot_uniform())
        with scope(name):
            self.w = parameter("w", (maps, channels // groups, *self.kernel), maps_first(init), dtype)
            self.b = parameter("b", (maps,), dtype=dtype) if bias else None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.w] if self.b is None else [self.w, self.b]

    def __call__(self, x: Tensor) -> Tensor:
        """Images (batch, channels, *sizes) to feature maps (batch, maps, *sizes'). ShapeError for other channels, and
        for a kernel larger than the padded image."""
        x = one_tensor(self, x)
        if x.rank != self.axes + 2 or x.shape[1] != self.channels:
            raise _other_axes(f"{type(self).__name__} {self.name!r}", self.axes, self.channels, x)
        with scope(self.name):
            z = type(self).function(x, self.w, **self.settings)
            if self.b is not None:
                z = add(z, expand_dims(self.b, tuple(range(1, self.axes + 1))))
            return z if self.activation is None else self.activation(z)


class Conv1D(Conv):
    """A convolution along one axis: (batch, channels, size) to (batch, maps, size'), as of the words of a text.

    >>> import flowgraph as fg
    >>> words = fg.input("words", ("batch", 50, 100))
    >>> fg.nn.Conv1D("ngrams", 50, 64, 3, fg.relu)(words).shape
    (batch, 64, 98)
    """

    axes, function = 1, staticmethod(conv1d)


class Conv2D(Conv):
    """A convolution of images: (batch, channels, height, width) to feature maps (batch, maps, height', width').

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition".

    >>> import flowgraph as fg
    >>> first = fg.nn.Conv2D("first", 1, 20, 5, fg.relu)
    >>> first(fg.input("x", ("batch", 1, 28, 28))).shape
    (batch, 20, 24, 24)
    >>> [p.label for p in first.parameters]
    ['first/w', 'first/b']
    """

    axes, function = 2, staticmethod(conv2d)


class Pooling:
    """What the pooling layers share. `window` and `stride` are an int or one for each axis, `stride` is the window
    unless given, `padding` as of `fg.max_pool2d`. They have no parameters."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, window: Any, stride: Any = None, padding: Any = "valid") -> None:
        self.window, self.stride, self.padding = window, stride, padding

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, *sizes) to maps (batch, channels, *sizes'). ShapeError for another number of axes, and
        for a window larger than the padded map."""
        x = as_tensor(x, what=type(self).__name__)
        if x.rank != self.axes + 2:
            raise _other_axes(type(self).__name__, self.axes, "channels", x)
        return type(self).function(x, self.window, self.stride, self.padding)


class MaxPool1D(Pooling):
    """The maximum of every window of the last axis, as `fg.max_pool1d`.

    >>> import flowgraph as fg
    >>> fg.nn.MaxPool1D(4)(fg.input("x", ("batch", 8, 100))).shape
    (batch, 8, 25)
    """

    axes, function = 1, staticmethod(max_pool1d)


class MaxPool2D(Pooling):
    """The maximum of every window of the last two axes, as `fg.max_pool2d`.

    >>> import flowgraph as fg
    >>> fg.nn.MaxPool2D(2)(fg.input("x", ("batch", 20, 24, 24))).shape
    (batch, 20, 12, 12)
    """

    axes, function = 2, staticmethod(max_pool2d)


class AvgPool1D(Pooling):
    """The mean of every window of the last axis, as `fg.avg_pool1d`.

    >>> import flowgraph as fg
    >>> fg.nn.AvgPool1D(4)(fg.input("x", ("batch", 8, 100))).shape
    (batch, 8, 25)
    """

    axes, function = 1, staticmethod(avg_pool1d)


class AvgPool2D(Pooling):
    """The mean of every window of the last two axes, as `fg.avg_pool2d`.

    >>> import flowgraph as fg
    >>> fg.nn.AvgPool2D(2)(fg.input("x", ("batch", 20, 24, 24))).shape
    (batch, 20, 12, 12)
    """

    axes, function = 2, staticmethod(avg_pool2d)


def _other_axes(what: str, axes: int, channels: int | str, x: Tensor) -> ShapeError:
    sizes = "size" if axes == 1 else "height, width"
    return ShapeError(
        f"{what} takes (batch, {channels}, {sizes}), got {show_shape(x.shape)}",
        where=origins.here(),
        hint="channels are the second axis; fg.reshape or fg.expand_dims(x, 1) makes one",
    )


def flatten(x: Tensor) -> Tensor:
    """(batch, ...) to (batch, features): each example's elements in one row, for a `Dense` layer after feature maps.

    >>> import flowgraph as fg
    >>> flatten(fg.input("maps", ("batch", 16, 5, 5))).shape
    (batch, 400)
    """
    x = as_tensor(x, what="flatten")
    if x.rank < 2:
        raise ShapeError(
            f"nn.flatten of a tensor of shape {show_shape(x.shape)}",
            where=origins.here(),
            hint="it needs examples and at least one axis more; fg.flatten makes a vector of anything",
        )
    features: Size = 1
    for size in x.shape[1:]:
        features = features * size
    return reshape(x, (x.shape[0], features))


def maps_first(init: Initializer) -> Initializer:
    """An initialiser of kernels (maps, channels, *kernel) by one of (*kernel, channels, maps), whose fans it knows."""
    require_initializer("w", init)

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        drawn = init((*shape[2:], shape[1], shape[0]), generator)
        return np.moveaxis(drawn, (-1, -2), (0, 1))

    return draw
