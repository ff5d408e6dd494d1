//! Networks that are read when they are needed.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// A network that may be in memory or not.
pub(crate) struct Slot<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Slot<T> {
    /// The network, loaded if it is not there.
    pub(crate) fn get(&self, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = &*slot {
            return Ok(Arc::clone(network));
        }
        let network = Arc::new(load()?);
        *slot = Some(Arc::clone(&network));
        Ok(network)
    }

    /// Lets go of the network.
    pub(crate) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
