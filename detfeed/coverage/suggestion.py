"""AnchorSuggestion: anchors that cover a data set better than given ones, checked on images they were not fitted to."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from detfeed.annotations import Annotations
from detfeed.coverage.anchor_coverage import AnchorCoverage, Group, cover, describe_grid, percent
from detfeed.coverage.anchor_search import Choice, search, with_grid
from detfeed.coverage.fed_objects import OnProgress, feed_objects
from detfeed.errors import expect
from detfeed.images.canvases import Resize
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid

FIT_SHARE = 0.5  # of the images: with more, a hundred images leave too few to tell a gain from chance
FEWEST = 20  # objects to fit to, and to compare on


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AnchorSuggestion:
    """Anchors for a data set, and what they gain; the answer of `suggest_anchors`.

    Attributes:
        given: the grid to do better than.
        choice: the sizes and ratios that were found; None if none could be looked for.
        before, after: coverage by the given grid and by those sizes and ratios, of images that they were not fitted to.
        num_fitted: images that they were fitted to.
    """

    given: AnchorGrid
    choice: Choice | None
    before: AnchorCoverage
    after: AnchorCoverage
    num_fitted: int

    @property
    def is_better(self) -> bool:
        """Whether more objects have a true positive, by over one standard error.

        An object counts 1 if it has a true positive, -1 if no anchor is to learn it, and else 0; it is compared with
        itself under the other grid.
        """
        worth = [each.positive.astype(np.int64) - each.unmatched for each in (self.before, self.after)]
        gain = worth[1] - worth[0]
        more = int(self.after.positive.sum()) > int(self.before.positive.sum())
        return more and bool(gain.sum() > np.sqrt((gain**2).sum()))

    @property
    def anchors(self) -> AnchorGrid:
        """The grid to use: the one that was found if it is better, else the given one."""
        return self.after.anchors if self.is_better else self.given

    @property
    def python(self) -> str:
        """The found sizes and ratios as Python; empty if there are none."""
        return "" if self.choice is None else self.choice.python(self.given)

    @property
    def options(self) -> str:
        """The found sizes and ratios as options of a command line; empty if there are none."""
        return "" if self.choice is None else self.choice.options()

    def worse_classes(self) -> list[tuple[Group, Group]]:
        """Classes of which fewer objects have a true positive than before, of those with 20 objects: before, after."""
        pairs = zip(self.before.by_class(), self.after.by_class(), strict=True)
        return [(old, new) for old, new in pairs if old.count >= FEWEST and new.positive < old.positive]

    def summary_line(self) -> str:
        """One line for a log."""
        checked = f"{len(self.before.positions):,} images that they were not fitted to"
        if self.choice is None:
            return (
                f"anchors: none are suggested: it takes {FEWEST} objects to fit to and as many to check on, and levels "
                "with room for the sizes"
            )
        if not self.is_better:
            return f"anchors: none better were found, in {checked}"
        before, after = percent(self.before.all.positive), percent(self.after.all.positive)
        return f"anchors: {self.options} give {after} of objects a true positive instead of {before}, in {checked}"

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {
            "better": self.is_better,
            "sizes": None if self.choice is None else [list(level) for level in self.choice.sizes],
            "ratios": None if self.choice is None else list(self.choice.ratios),
            "anchors": describe_grid(self.anchors),
            "python": self.python,
            "options": self.options,
            "images_fitted": self.num_fitted,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    def __repr__(self) -> str:
        return f"AnchorSuggestion({self.summary_line().removeprefix('anchors: ')})"


def suggest_anchors(
    annotations: Annotations,
    anchors: AnchorGrid | AnchorTargets,
    *,
    resize: Resize,
    check_on: Annotations | None = None,
    augment: Any = None,
    seed: int = 0,
    min_visibility: float = 0.25,
    min_size: float = 1.0,
    max_images: int | None = None,
    on_progress: OnProgress | None = None,
) -> AnchorSuggestion:
    """Look for sizes and ratios of anchors that cover a data set better than those of a grid do.

    Levels and anchors a cell stay, and so the size of the model's head. On a level of several, sizes are from 2 to 16
    strides. What is found is compared with the given grid on images that it was not fitted to; the answer's `anchors`
    are the given ones unless it is better there beyond chance.

    Args:
        annotations: the data set. Half of its images are fitted to, the others are checked on.
        anchors: the grid to do better than; or AnchorTargets, if its thresholds are not the usual ones.
        check_on: images to check on, such as the validation data; then all of `annotations` is fitted to.
        resize, augment, seed, min_visibility, min_size, max_images, on_progress: see `anchor_coverage`. The seed is
            also that of the search and of the division.

    Raises:
        TypeError, ValueError: as `anchor_coverage`.
    """
    expect(AnchorGrid | AnchorTargets, "an AnchorGrid or AnchorTargets", anchors=anchors)
    expect(Annotations | None, "an Annotations table or None", check_on=check_on)
    targets = AnchorTargets(anchors) if isinstance(anchors, AnchorGrid) else anchors
    arguments: dict[str, Any] = {
        "resize": resize,
        "augment": augment,
        "seed": seed,
        "min_visibility": min_visibility,
        "min_size": min_size,
        "on_progress": on_progress,
    }
    fed = feed_objects(annotations, max_images=max_images, **arguments)
    if check_on is None:
        parts = np.random.default_rng(seed).permutation(len(fed.positions)) < FIT_SHARE * len(fed.positions)
        fitted, checked, table = fed.select(parts), fed.select(~parts), annotations
    else:
        fitted, checked, table = fed, feed_objects(check_on, max_images=max_images, **arguments), check_on
    enough = min(int((~part.ignore).sum()) for part in (fitted, checked)) >= FEWEST
    choice = search(targets, fitted, seed=seed) if enough else None
    before = cover(targets, checked, table)
    after = before if choice is None else cover(with_grid(targets, choice.grid(targets.anchors)), checked, table)
    return AnchorSuggestion(targets.anchors, choice, before, after, len(fitted.positions))
