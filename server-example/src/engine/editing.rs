//! The edit model behind its queue.

use std::sync::Arc;

use tagbrush::{Control, EditOptions, EditRequest, Result};

use super::models::{EditModel, Models, Sink, try_editor};
use super::queue::{Kind, Order, Queue};

/// Edits.
pub struct Edits;

/// A request to the edit thread.
pub type Edit = Order<Edits>;

/// The way to the edit thread.
pub type EditQueue = Queue<Edits>;

impl Kind for Edits {
    const NAME: &'static str = "edit";
    type Model = dyn EditModel;
    type Request = EditRequest;
    type Options = EditOptions;

    fn load(models: &dyn Models) -> Result<Arc<Self::Model>> {
        let model = models.editor()?;
        try_editor(&*model)?;
        Ok(model)
    }

    fn variants(options: &EditOptions) -> usize {
        options.n
    }

    fn prepare(_: &Self::Model, _: &EditOptions) -> Result<()> {
        Ok(())
    }

    fn make(
        model: &Self::Model,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        model.edit(requests, options, control, sink)
    }
}
