//! Stored queries: texts under ids, kept beside the catalogue of feature types and followed by every instance as that is. What they
//! say is the business of the protocol that makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use crate::store::CatalogueError;

impl Store {
    /// All of them by id, as far as this instance knows.
    pub fn stored_queries(&self) -> Arc<BTreeMap<String, String>> {
        self.stored_queries.read().clone()
    }

    /// The text of one. It may have been made on another instance a moment ago: an id that is not known is asked for.
    pub async fn stored_query(&self, id: &str) -> Result<Option<String>, CatalogueError> {
        if let Some(known) = self.stored_queries().get(id) {
            return Ok(Some(known.clone()));
        }
        self.look_for_stored_queries().await?;
        Ok(self.stored_queries().get(id).cloned())
    }

    /// Keeps all of these, or none and gives the first id that is taken. When it returns, they are durable and known here; other
    /// instances follow within their catalogue interval.
    pub async fn keep_stored_queries(&self, queries: &[(String, String)]) -> Result<Option<String>, CatalogueError> {
        let taken = self.delegate.keep_stored_queries(queries).await?;
        self.look_for_stored_queries().await?;
        Ok(taken)
    }

    /// Forgets one; false when there was none.
    pub async fn drop_stored_query(&self, id: &str) -> Result<bool, CatalogueError> {
        let dropped = self.delegate.drop_stored_query(id).await?;
        self.look_for_stored_queries().await?;
        Ok(dropped)
    }

    async fn look_for_stored_queries(&self) -> Result<(), CatalogueError> {
        let _alone = self.catalogue.lock().await;
        self.take_stored_queries().await
    }

    /// By one at a time, so that no earlier state comes after a later one: the caller holds the catalogue.
    pub(super) async fn take_stored_queries(&self) -> Result<(), CatalogueError> {
        let all = Arc::new(self.delegate.stored_queries().await?);
        *self.stored_queries.write() = all;
        Ok(())
    }
}
