//! Link arguments of an addon: on macOS, Node's symbols are found when it is loaded.

fn main() {
    napi_build::setup();
}
