"""What a script ran on, for its results."""

import os
import platform


def machine():
    model = [line for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {"cpu": model[0].split(":")[1].strip() if model else platform.processor(), "cores": os.cpu_count()}
