// Paths are relative to the page, so that it works behind a proxy that puts a prefix before them.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: null, // its default asks a server elsewhere
});
