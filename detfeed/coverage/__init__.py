"""Coverage: how well anchors fit the objects of a data set as it is fed, and which anchors would fit them better."""
