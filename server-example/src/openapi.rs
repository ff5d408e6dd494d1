//! The description of all endpoints.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::{edits, generate, jobs, pages, tagger};

#[derive(OpenApi)]
#[openapi(
    info(title = "tagbrush server", description = "Tags, edits and generates pictures."),
    modifiers(&Keys),
    security(("basic" = []), ("bearer" = []), ("key" = []), ()),
    paths(
        tagger::interrogate_batch,
        tagger::interrogate,
        tagger::interrogators,
        tagger::unload,
        edits::edit,
        generate::generate,
        generate::control::control,
        generate::control::all_models,
        generate::control::styles,
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
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY")));
        components.add_security_scheme("key", key);
    }
}

/// `GET /openapi.json`.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
