//! Work split between threads, and memory that every thread keeps for it.

use std::cell::RefCell;
use std::ops::Range;

use super::engine::Line;
use super::pages::enlarge;

/// Cuts `count` things into at most `parts` ranges of nearly equal length.
pub(crate) fn part(count: usize, parts: usize, index: usize) -> Range<usize> {
    let (each, more) = (count / parts, count % parts);
    let start = index * each + index.min(more);
    start..start + each + usize::from(index < more)
}

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` the first `count` lines of this thread's memory, with whatever is in them.
///
/// A task may not start another one inside `f` that asks for lines on the same thread.
pub(crate) fn with_lines<R>(count: usize, f: impl FnOnce(&mut [Line]) -> R) -> R {
    LINES.with_borrow_mut(|lines| {
        if lines.len() < count {
            lines.resize(count, Line::ZERO);
            enlarge(lines.as_ptr(), size_of_val(&lines[..]));
        }
        f(&mut lines[..count])
    })
}
