//! gRPC's form of the gateway's errors: status, details and metadata from the one table.

use bytes::Bytes;
use http::HeaderValue;
use prost::Message;
use tonic::{
    Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::core::Failure;
use crate::{
    egress::{document, retry_after, server_timing},
    outcome::ErrorCode,
};

/// The metadata key with the stable code, as the header of HTTP replies.
pub(super) const GW_ERROR: &str = "gw-error";

/// The metadata key that says whether a retry is safe.
pub(super) const GW_RETRY_SAFE: &str = "gw-retry-safe";

/// The metadata key that says where the time went.
pub(super) const SERVER_TIMING: &str = "server-timing";

/// The domain of our codes in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tsh-gateway";

/// `google.rpc.Status`, the content of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(string, tag = "2")]
    pub(super) domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

/// The status that a failed call gets.
pub(super) fn status(failure: &Failure, correlation_id: Option<&HeaderValue>) -> Status {
    let row = failure.code.row();
    let message = format!("{}: {}", row.title, failure.message);
    let info = ErrorInfo {
        reason: row.code.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: [
            ("blame", row.blame.as_str()),
            ("retry_safe", failure.retry_safe.as_str()),
            ("phase", failure.journey.phase.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
    };
    let details = RpcStatus {
        code: row.grpc as i32,
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(GW_ERROR, MetadataValue::from_static(row.code));
    metadata.insert(GW_RETRY_SAFE, MetadataValue::from_static(failure.retry_safe.as_str()));
    if let Ok(timing) = MetadataValue::try_from(server_timing(&failure.journey)) {
        metadata.insert(SERVER_TIMING, timing);
    }
    if let Some(wait) = failure.retry_after {
        metadata.as_mut().insert(http::header::RETRY_AFTER, retry_after(wait));
    }
    if let Some(id) = correlation_id {
        metadata.as_mut().insert(super::headers::CORRELATION_ID, id.clone());
    }
    Status::with_details_and_metadata(row.grpc, message, Bytes::from(details.encode_to_vec()), metadata)
}

/// The code of a call that tonic refused before it reached us, by its gRPC status.
pub(super) fn code_of_refusal(grpc: tonic::Code) -> ErrorCode {
    match grpc {
        // tonic's answer to a message above the limit.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => ErrorCode::BodyTooLarge,
        tonic::Code::Unimplemented => ErrorCode::MethodNotAllowed,
        _ => ErrorCode::BadRequest,
    }
}

/// The reply to a request that is not gRPC at all: a problem document (RFC 9457), as for plain HTTP.
pub(super) fn problem(failure: &Failure) -> http::Response<tonic::body::Body> {
    let row = failure.code.row();
    let document =
        document(failure.code, failure.retry_safe, None, &failure.message, failure.retry_after, None);
    let body = tonic::body::Body::new(http_body_util::Full::new(document));
    let mut response = http::Response::new(body);
    *response.status_mut() = failure.code.status();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(GW_ERROR, HeaderValue::from_static(row.code));
    headers.insert(GW_RETRY_SAFE, HeaderValue::from_static(failure.retry_safe.as_str()));
    if let Ok(timing) = HeaderValue::try_from(server_timing(&failure.journey)) {
        headers.insert(SERVER_TIMING, timing);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pool::{Journey, RetrySafe};

    use super::*;

    #[test]
    fn every_code_is_in_status_details_and_metadata_alike() {
        for &code in ErrorCode::ALL {
            let failure = Failure {
                code,
                retry_safe: RetrySafe::Unknown,
                retry_after: Some(Duration::from_millis(1_001)),
                message: "m".to_owned(),
                journey: Journey::default(),
            };
            let status = status(&failure, None);
            assert_eq!(status.code(), code.row().grpc);
            let details = RpcStatus::decode(status.details()).unwrap();
            assert_eq!(details.code, code.row().grpc as i32);
            let info = ErrorInfo::decode(details.details[0].value.as_slice()).unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (code.as_str(), "tsh-gateway"));
            assert_eq!(
                (info.metadata["retry_safe"].as_str(), info.metadata["phase"].as_str()),
                ("unknown", "waiting")
            );
            assert_eq!(info.metadata["blame"], code.row().blame.as_str());
            assert_eq!(status.metadata().get(GW_ERROR).unwrap(), code.as_str());
            assert_eq!(status.metadata().get(GW_RETRY_SAFE).unwrap(), "unknown");
            assert!(status.metadata().get(SERVER_TIMING).unwrap().to_str().unwrap().contains("queue;dur="));
            assert_eq!(status.metadata().get("retry-after").unwrap(), "2", "rounded up");
        }
    }
}
