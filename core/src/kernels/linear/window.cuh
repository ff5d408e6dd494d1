// Where a window goes over pictures, which `cuda.rs` has as well.
#pragma once

struct WindowArgs {
    int height, width, channels;
    int down, across; // places of the window
    int size_y, size_x, stride_y, stride_x, top, left;
};
