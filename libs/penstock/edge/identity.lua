-- Who asks, and for which endpoint. Runs after the token was checked and after the model's name was read from a gRPC body.
-- All x-penstock-* headers of the client are gone by now; those below are ours, and routes without them lead nowhere, so
-- a failure in here closes the door.

local denied = {--[[DENIED]]}
local any_denied = next(denied) ~= nil

local ID = "^[a-z][a-z0-9%-]*$"
local CLAIM = "x-penstock-claim-"
local JWT = "envoy.filters.http.jwt_authn"
local EXTRACTED = "envoy.filters.http.grpc_field_extraction"
local KSERVE = "/inference.GRPCInferenceService/"

local function refuse(handle, status, message)
  handle:respond({[":status"] = status}, message)
end

local function first(extracted, field)
  local values = extracted[field]
  return values and values[1]
end

-- The endpoint that a request is for, and its protocol; nil where it is for none.
local function wanted(handle, path)
  if string.sub(path, 1, #KSERVE) ~= KSERVE then
    return string.match(path, "^/v2/models/([^/?]+)"), "http"
  end
  local extracted = handle:streamInfo():dynamicMetadata():get(EXTRACTED)
  return extracted and (first(extracted, "model_name") or first(extracted, "name")), "grpc"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if path == "/healthz" then return end
  local role = headers:get(CLAIM .. "role")
  if not role then return refuse(handle, "401", "This needs a token") end
  if any_denied and denied[headers:get(CLAIM .. "jti")] then
    return refuse(handle, "401", "This token was revoked")
  end

  local own = headers:get(CLAIM .. "project") or ""
  local project = own
  -- The home's token, and a service that acts for nobody in particular: any project, named by the path.
  local function anywhere()
    local token = handle:streamInfo():dynamicMetadata():get(JWT)
    return token["claims"]["platform"] == true or (role == "service" and own == "")
  end
  local named, rest = string.match(path, "^/v1/projects/([^/?:]+)(.*)$")
  if named and named ~= project then
    if not anywhere() then return refuse(handle, "403", "The token is for another project than the path") end
    project = named
  end
  if not string.find(project, ID) then
    if not anywhere() then return refuse(handle, "403", "The token names no project") end
    project = "-"
  end
  headers:replace("x-penstock-project", project)

  -- /v1/projects/{p}/v2/... is /v2/... of that project, for a token that may act in several.
  if rest and (rest == "/v2" or string.find(rest, "^/v2[/?]")) then
    path = rest
    headers:replace(":path", path)
  end

  local endpoint, protocol = wanted(handle, path)
  if endpoint and role == "runner" then
    return refuse(handle, "403", "This token is for the reports of one job alone")
  end
  if endpoint and string.find(endpoint, ID) then
    local cluster = "endpoint/" .. project .. "/" .. endpoint
    local pin = role == "service" and headers:get("penstock-pin")
    if pin and string.find(pin, "^[1-9][0-9]*$") then
      cluster = cluster .. "/" .. pin
    end
    headers:replace("x-penstock-endpoint", endpoint)
    headers:replace("x-penstock-cluster", cluster .. "/" .. protocol)
  end
  handle:clearRouteCache()
end
