//! Tags, edits and generates images in batches.
