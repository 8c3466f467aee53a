"""`graphc.signal`: signal processing."""

from graphc.frontend.signal import windows as windows
