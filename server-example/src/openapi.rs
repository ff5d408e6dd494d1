//! The description of all endpoints.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::{edits, jobs, pages, tagger};

#[derive(OpenApi)]
#[openapi(
    info(title = "tagbrush server", description = "Tags and edits pictures."),
    modifiers(&Keys),
    security(("basic" = []), ("bearer" = []), ()),
    paths(
        tagger::interrogate_batch,
        tagger::interrogate,
        tagger::interrogators,
        tagger::unload,
        edits::edit,
        jobs::routes::list,
        jobs::routes::delete_range,
        jobs::routes::one,
        jobs::routes::delete_one,
        jobs::routes::cancel,
        pages::health,
        pages::ready,
        pages::models,
        pages::metrics,
    ),
    components(schemas(tagger::Caption))
)]
struct Document;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("bearer", HttpAuthScheme::Bearer)]
        {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

/// `GET /openapi.json`.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
