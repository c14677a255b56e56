//! Items as FlatGeobuf: all that match, or as many as `limit` says. The format has no place for a link to a next page.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{TryStreamExt, stream};

use super::items::{PIECE, common_headers};
use super::params::ItemsRequest;
use crate::format::flatgeobuf::{FeatureWriter, MEDIA_TYPE};
use crate::format::gml::Selection;
use crate::model::FeatureType;
use crate::query::Query;
use crate::store::{ReadError, Reading};
use crate::web::Web;
use crate::web::problem::{Problem, Result};

/// The answer to a request for items, whose limit is the client's own.
pub async fn flatgeobuf(web: &Web, ft: Arc<FeatureType>, request: ItemsRequest) -> Result<Response> {
    let ItemsRequest { query, limit, crs, properties, skip_geometry } = request;
    let whole = limit == u64::MAX;
    let any_order = whole && query.sort.is_empty() && query.after.is_none();
    let reading = web.store.read(Query { limit: (!whole).then_some(limit), any_order, ..query }).await?;
    let selection = Selection {
        geometry: !skip_geometry,
        properties: properties.unwrap_or_else(|| Selection::all(&ft).properties),
    };
    let writer = FeatureWriter::new(&ft, crs.crs, &selection, false);
    let headers = common_headers(&reading, &crs);

    // The first piece is made before the head goes out, so that a failure up to here has its status.
    let mut first = writer.header().to_vec();
    let mut download = Download { reading, writer };
    let more = download.fill(&mut first).await.map_err(Problem::from)?;
    let body = match more {
        false => Body::from(first),
        true => {
            let rest = stream::try_unfold(Some(download), |download| async {
                let Some(mut download) = download else { return Ok(None) };
                let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
                let more = download.fill(&mut piece).await?;
                Ok(Some((Bytes::from(piece), more.then_some(download))))
            });
            let rest = rest.inspect_err(|error: &ReadError| tracing::warn!(%error, "an answer was broken off"));
            Body::from_stream(futures::StreamExt::chain(stream::iter([Ok(Bytes::from(first))]), rest))
        }
    };
    let file_name = format!("attachment; filename=\"{}.fgb\"", ft.name);
    Ok((headers, [(header::CONTENT_TYPE, MEDIA_TYPE.to_owned()), (header::CONTENT_DISPOSITION, file_name)], body)
        .into_response())
}

struct Download {
    reading: Reading,
    writer: FeatureWriter,
}

impl Download {
    /// Appends up to a piece; false when there is no more.
    async fn fill(&mut self, out: &mut Vec<u8>) -> std::result::Result<bool, ReadError> {
        while out.len() < PIECE {
            let Some(item) = self.reading.next().await.transpose()? else { return Ok(false) };
            if let Err(error) = self.writer.write(out, &item.feature) {
                tracing::debug!(id = %item.feature.id, %error, "a geometry has no place in the CRS asked for");
                self.writer.write_without_geometry(out, &item.feature);
            }
        }
        Ok(true)
    }
}
